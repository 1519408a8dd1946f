"""Get images: the files of MNIST from their mirrors, or folders and arrays of one's own."""

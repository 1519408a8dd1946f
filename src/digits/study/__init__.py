"""Many trainings as one study: over seeds, or in search of better parameters."""

"""Handwriting: pictures, the digits cropped from them, predictions, and a page to draw on."""

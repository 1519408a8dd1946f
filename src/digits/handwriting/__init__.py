"""Handwriting read: pictures, the ink in them, the digits that a network sees there."""

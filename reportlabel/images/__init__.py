"""Photographs: metadata taken out, cleared by a person before they go anywhere, sets with and without marks."""

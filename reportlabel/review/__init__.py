"""Radiologists correct doubtful labels in Label Studio: what is worth reading, the screen, push, pull, agreement."""

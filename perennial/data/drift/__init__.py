"""Statistics of a version's training rows and of a window of traffic, for the verdict on drift."""

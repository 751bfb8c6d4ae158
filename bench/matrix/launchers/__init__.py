"""Where the stages of a matrix run: the interface (``base``) and its implementations."""

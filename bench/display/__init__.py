"""Views of running work, and the tables at its end."""

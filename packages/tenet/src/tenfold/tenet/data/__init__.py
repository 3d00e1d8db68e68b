"""Files in, arrays and scenes out."""

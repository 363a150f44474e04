"""What flows: bytes to columns and back."""

"""How it is transformed: pure functions and states over frames."""

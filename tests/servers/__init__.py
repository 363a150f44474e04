"""Real servers and clients for the tests: they listen on 127.0.0.1 only and end with the session."""

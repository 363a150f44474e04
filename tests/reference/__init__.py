"""Sections 5 to 8 of the rules as slowly and plainly as they read: one span at a time, plain dicts, exact fractions.

Nothing here is shared with what it is compared with but settings, records and the names of metrics; messages are read
with protobuf's own parser (`tests.otlp_oracle`).
"""

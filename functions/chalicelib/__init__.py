"""The functions' handlers: each parses an event, calls one service, maps errors, returns."""

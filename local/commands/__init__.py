"""The subcommands of ``lookalike``, one module each, imported when they are called."""

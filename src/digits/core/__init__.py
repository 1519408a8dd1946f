"""Everything that a result depends on."""

"""Results as tables, as an HTML page, in comparisons and in the formats of other tools."""

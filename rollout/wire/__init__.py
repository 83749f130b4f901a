"""Documents on the wire: how values become bytes and bytes become values again, tolerant of what is newer."""

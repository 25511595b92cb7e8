"""What callers speak: each wire turns bytes into a Request and a Reply into bytes, without I/O."""

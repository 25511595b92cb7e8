"""A program on labelled rows: every answer scored and on record, resumable, with intervals and reports."""

"""The vendors' batch APIs: many calls handed in at once and answered within a day, at about half the price."""

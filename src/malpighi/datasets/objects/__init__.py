"""The 14 data sets of objects and regions that SmartPath-R1 detects and segments (Table 12)."""

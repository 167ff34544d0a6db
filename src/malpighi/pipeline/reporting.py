"""The stage that turns predictions into tables and one page."""

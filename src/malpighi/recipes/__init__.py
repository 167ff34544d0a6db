"""Recipes: functions that return one configuration each; every number says where it comes from."""

"""The spine: run a recipe's stages over a run folder, resume, plan, tell the status, ask the result."""

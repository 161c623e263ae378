"""Issue the token of an approved task, and resolve an issue that did not finish."""

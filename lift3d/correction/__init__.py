"""A person's corrections: edits, their replay on the automatic labels, proposals, doubts."""

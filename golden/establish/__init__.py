"""Reading off a runtime's arithmetic: kinds of layers, cases on which rules part, and the rule that gives all."""

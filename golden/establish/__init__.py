"""Reading off a runtime's arithmetic: kinds of layers, inputs on which rules part, and the rule that fits."""

"""Finding a runtime's arithmetic: kinds of layers, inputs on which rules differ, the rule that fits."""

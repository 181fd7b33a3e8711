"""A runtime that misbehaves on request: the "model file" is a JSON list of what to do when invoked.

It has one input (tensor 0), an inner tensor 1 and an output 2, all uint8 [4];
the output is the input plus one.
"""

import json
import os
import signal
import sys
import time

import numpy as np


class OpResolverType:
    BUILTIN_REF = 1
    BUILTIN_WITHOUT_DEFAULT_DELEGATES = 3
    AUTO = 0


def load_delegate(library, options):
    if options.get("device") == "usb:9":
        raise ValueError(f"Failed to load delegate from {library}")
    return library


class Interpreter:
    def __init__(self, model_path, num_threads, experimental_preserve_all_tensors=False, **options):
        with open(model_path, encoding="utf-8") as file:
            self.todo = json.load(file)
        self.preserve = experimental_preserve_all_tensors
        self.tensors = [np.zeros(4, np.uint8) for _ in range(3)]
        if "in place" in self.todo:
            self.tensors[2] = self.tensors[1]

    def reset_all_variables(self):
        """It has no variables."""

    def allocate_tensors(self):
        if "refuse" in self.todo:
            raise RuntimeError("this op is not to my taste")

    def get_input_details(self):
        return [{"name": "x", "index": 0, "shape": np.array([4]), "dtype": np.uint8}]

    def get_output_details(self):
        return [{"name": "y", "index": 2, "shape": np.array([4]), "dtype": np.uint8}]

    def _get_ops_details(self):
        return [
            {"index": 0, "op_name": "ADD", "inputs": [0], "outputs": [1]},
            {
                "index": 1,
                "op_name": "RESHAPE" if "renamed" in self.todo else "MUL",
                "inputs": [1],
                "outputs": [2],
            },
        ]

    def set_tensor(self, index, value):
        self.tensors[index][...] = value

    def get_tensor(self, index):
        if index == 1 and "no value" in self.todo:
            raise ValueError("Tensor data is null. Run allocate_tensors() first")
        return self.tensors[index].copy()

    def tensor(self, index):
        return lambda: self.tensors[index]

    def invoke(self):
        if "noise" in self.todo:
            os.write(1, b"{} chatter from C++\n")
            sys.stdout.write("chatter from Python\n")
        if "hang" in self.todo:
            time.sleep(3600)
        if "die" in self.todo:
            os.write(2, b"Check failed: x == y\n")
            os.kill(os.getpid(), signal.SIGABRT)
        if "exit" in self.todo:
            os._exit(7)
        self.tensors[1][...] = self.tensors[0] + 1
        self.tensors[2][...] = self.tensors[0] + 1
        if "disturbed" in self.todo and self.preserve:
            self.tensors[2][0] += 1

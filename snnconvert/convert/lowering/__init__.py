"""What an operator becomes in the dialect, whatever the source calls it: each fact once, for every door.

A door (`onnx_ops/`, `aten_ops/`) translates names and argument lists; geometry, broadcasting and the choice of kinds
are decided here. `flow.py` says what a value is, `scope.py` what a rule may do; the other modules are the rules.
"""

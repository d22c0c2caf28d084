"""From the stages' results to the parts of the report: the only room that knows both.

NaN stops here: what can not be computed becomes `None`.
"""

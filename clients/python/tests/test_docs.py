"""What pydoc shows of the package."""

from __future__ import annotations

import inspect
import unittest

import linksgate
from linksgate import blocking


class Documented(unittest.TestCase):
    def test_every_public_name_says_what_it_is_for(self) -> None:
        """Each public class, function and method has a docstring of its own."""
        objects = {name: getattr(linksgate, name) for name in linksgate.__all__}
        objects["blocking.Client"] = blocking.Client
        checked = 0
        for name, value in objects.items():
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue  # a type alias or a module
            if not value.__module__.startswith("linksgate.") or ".v1." in value.__module__:
                continue  # generated code has the comments of the protos
            self.assertTrue(value.__doc__, name)
            checked += 1
            for member, method in vars(value).items():
                if member.startswith("_") or not inspect.isfunction(method):
                    continue
                self.assertTrue(method.__doc__, f"{name}.{member}")
                checked += 1
        self.assertGreater(checked, 15)


if __name__ == "__main__":
    unittest.main()

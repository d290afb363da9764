"""Check that no part of the project reports its use.

What vLLM and Unsloth read is set before either can be imported.
"""

import os
import subprocess
import sys

SWITCHES = ("VLLM_NO_USAGE_STATS", "UNSLOTH_DISABLE_STATISTICS")


def test_package_turns_the_reports_of_vllm_and_unsloth_off_as_it_is_imported():
    """Import the package alone, which comes before anything that a stage or tool imports.

    Every stage and tool is a module of the package.
    """
    clean = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    code = (
        "import os, sys, gpro_empathy\n"
        f"print([os.environ.get(name) for name in {SWITCHES}], {{'vllm', 'unsloth', 'torch'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['1', '1'] set()"

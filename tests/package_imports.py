"""The imports of the package, inside functions and under TYPE_CHECKING too.

Other packages stand there by their first name.
"""

import grimp

IMPORTS = grimp.build_graph("gpro_empathy", include_external_packages=True, cache_dir=None)

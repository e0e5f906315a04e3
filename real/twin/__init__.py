"""A simulated robot cell that from outside is a robot driver, its cameras and an object tracker."""

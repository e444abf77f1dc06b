"""Finding among millions: what is asked becomes conditions, orders, candidates by index, and pages under a budget."""

"""Making a node what its configuration says: observe, plan, carry out."""

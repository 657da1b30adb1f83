"""Running answers: routes, the driver of each answer, and all deadlines."""

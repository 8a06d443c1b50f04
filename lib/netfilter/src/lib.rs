//! Ruleset IR, diff, renderers, executors, fake and packet tracer.

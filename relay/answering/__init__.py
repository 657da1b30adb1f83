"""Answers under way: which route serves a chat, who drives an answer, and the deadlines of all."""

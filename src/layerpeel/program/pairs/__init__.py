"""Programs with two sizes of classes, the setting of minority collapse."""

package oneway

func packetChild(c *child) report { return report{} }

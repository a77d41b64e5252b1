package fec

// The field GF(2^8) with the polynomial 0x11d and the generator 2. The tables
// are made by the compiler's initialisation, never changed.
var (
	power, logarithm = tables()
	inverse          = inverses()
)

func tables() (exp [510]byte, log [256]byte) {
	x := 1
	for i := range 255 {
		exp[i], exp[i+255] = byte(x), byte(x)
		log[x] = byte(i)
		if x <<= 1; x > 255 {
			x ^= 0x11d
		}
	}
	return exp, log
}

func inverses() (inv [256]byte) {
	for x := 1; x < 256; x++ {
		inv[x] = power[255-int(logarithm[x])]
	}
	return inv
}

// mul multiplies in the field.
func mul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return power[int(logarithm[a])+int(logarithm[b])]
}

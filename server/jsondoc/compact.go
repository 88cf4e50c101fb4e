package jsondoc

// Order says in which order [Value.AppendCompact] writes the members of objects.
type Order uint8

const (
	// AsReceived keeps the order of the body.
	AsReceived Order = iota
	// SortedTop sorts the members of the value itself, if it is an object, and
	// keeps the order received in everything inside it.
	SortedTop
	// SortedAll sorts the members of every object, at any depth, also of those
	// in arrays. The elements of an array always stay where they are.
	SortedAll
)

// Spelled can be added to an Order, and writes strings as they stand: for a document that [ParseSpelled] has read.
const Spelled Order = 1 << 7

// AppendCompact appends the JSON text of v, without white space, to dst and
// returns it. [Value.SortedMembers] defines what sorted means.
//
// Numbers, booleans and nulls are written as they were received. Strings are
// written as Java's Jackson does, on which Linksfield's signatures rest: only
// the quote, the backslash and U+0000 to U+001F are escaped. In particular <, >,
// &, U+007F, U+2028, U+2029 and everything beyond ASCII stay as they are.
func (v Value) AppendCompact(dst []byte, order Order) []byte {
	switch v.Kind {
	case Object:
		return v.appendObject(dst, order)
	case Array:
		return v.appendArray(dst, order)
	case String:
		return appendString(dst, v.Text, order)
	case Null:
		return append(dst, "null"...)
	default:
		return append(dst, v.Text...)
	}
}

func (v Value) appendObject(dst []byte, order Order) []byte {
	dst = append(dst, '{')
	if order&^Spelled == AsReceived {
		for i := range v.Members {
			dst = v.Members[i].appendCompact(dst, i, order)
		}
	} else {
		for i, m := range v.SortedMembers() {
			dst = m.appendCompact(dst, i, order.inside())
		}
	}
	return append(dst, '}')
}

func (v Value) appendArray(dst []byte, order Order) []byte {
	dst = append(dst, '[')
	for i := range v.Elements {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = v.Elements[i].AppendCompact(dst, order.inside())
	}
	return append(dst, ']')
}

func (m *Member) appendCompact(dst []byte, index int, order Order) []byte {
	if index > 0 {
		dst = append(dst, ',')
	}
	dst = append(appendString(dst, m.Key, order), ':')
	return m.Value.AppendCompact(dst, order)
}

// inside is the order for what stands inside an object or array.
func (o Order) inside() Order {
	if o&^Spelled == SortedTop {
		return AsReceived | o&Spelled
	}
	return o
}

func appendString(dst []byte, text string, order Order) []byte {
	dst = append(dst, '"')
	if order&Spelled != 0 {
		return append(append(dst, text...), '"')
	}
	written := 0
	for i := range len(text) {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[written:i]...)
		dst = appendEscape(dst, c)
		written = i + 1
	}
	dst = append(dst, text[written:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	const upperHex = "0123456789ABCDEF"
	return append(dst, '\\', 'u', '0', '0', upperHex[c>>4], upperHex[c&0xF])
}

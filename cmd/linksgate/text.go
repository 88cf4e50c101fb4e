package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// visible returns s so that it can be shown on a terminal: as it is when it is
// one plain word, else quoted, with escapes for everything that does not print.
// Control characters, direction overrides and the like never come through.
func visible(s string) string {
	if s != "" && !strings.ContainsAny(s, "\"\\=,;") && isPlain(s) {
		return s
	}
	return strconv.Quote(s)
}

func isPlain(s string) bool {
	for _, r := range s {
		if r == ' ' || r == utf8.RuneError || !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

// escaped returns s with its spaces, quotes and backslashes as they are, and
// escapes for everything that does not print. It is for text that should be seen
// as it stands.
func escaped(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == utf8.RuneError || strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}

// shortened cuts s after max runes and says so.
func shortened(s string, max int) string {
	n := 0
	for i := range s {
		if n == max {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// printJSON writes v as one line, without escaping what only HTML minds.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// greatestInput is in bytes, and far more than a secret, a body or a request's headers take. A device may have no end.
const greatestInput = 16 << 20

// readInput reads the file that a flag names, or standard input for "-".
func readInput(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return readBounded("standard input", stdin)
	}
	return readFile(name)
}

// readFile reads a file, or a pipe, of up to greatestInput.
func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readBounded(name, file)
}

func readBounded(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, greatestInput+1))
	if err == nil && len(data) > greatestInput {
		err = fmt.Errorf("%s has more than %d MiB", name, greatestInput>>20)
	}
	return data, err
}

// integer is a number of things.
type integer interface {
	~int | ~int32 | ~int64 | ~uint64
}

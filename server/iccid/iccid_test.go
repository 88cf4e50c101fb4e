package iccid_test

import (
	"testing"

	"github.com/linksgate/linksgate/server/iccid"
)

func TestNormal(t *testing.T) {
	for text, want := range map[string]string{
		"89860220190123456789": "89860220190123456789", " 8986 0220 1901 2345 6789\n": "89860220190123456789",
		"8944110068012345678F": "8944110068012345678", "8944110068012345678f": "8944110068012345678", "8944 1100 6801 2345 678 F": "8944110068012345678",
		"8986\u00a00220\u30001901 2345 6789": "89860220190123456789",
		"":                                   "", "F": "F", "ff": "ff", "deadbeefdeadbeef": "deadbeefdeadbeef", "a b": "ab",
	} {
		if got := iccid.Normal(text); got != want {
			t.Errorf("%q: %q; want %q", text, got, want)
		}
		if got := iccid.Normal(want); got != want {
			t.Errorf("%q is not normal: %q", want, got)
		}
	}
}

func TestShapes(t *testing.T) {
	for text, want := range map[string]struct{ possible, shaped, damaged bool }{
		"89860220190123456789":     {true, true, false},
		"8944110068012345679":      {true, true, false}, // with its check digit
		"8944110068012345670":      {true, false, false},
		"89314404000816575667":     {true, true, false},
		"89000000000001":           {true, false, false}, // of Linksfield's signing example
		"1642385160000":            {true, false, false},
		"1795781672833754691":      {true, false, false}, // a time in nanoseconds
		"898602201901234567890":    {true, false, false},
		"898602201901234567890123": {false, false, false},
		"898602201x":               {false, false, false},
		"8.986e19":                 {false, false, true},
		"8.9860220190123456E+19":   {false, false, true},
		"8.986e3":                  {false, false, false},
		"7.986e19":                 {false, false, false},
		"":                         {false, false, false},
	} {
		if iccid.IsPossible(text) != want.possible || iccid.IsShaped(text) != want.shaped || iccid.IsDamaged(text) != want.damaged {
			t.Errorf("%q: %v %v %v; want %v", text, iccid.IsPossible(text), iccid.IsShaped(text), iccid.IsDamaged(text), want)
		}
	}
}

func FuzzNormal(f *testing.F) {
	f.Add(" 8944110068012345678F ")
	f.Fuzz(func(t *testing.T, text string) {
		normal := iccid.Normal(text)
		if again := iccid.Normal(normal); again != normal {
			t.Errorf("%q, %q, %q", text, normal, again)
		}
		if len(normal) > len(text) {
			t.Errorf("%q grew to %q", text, normal)
		}
		_, _, _ = iccid.IsPossible(text), iccid.IsShaped(text), iccid.IsDamaged(text)
	})
}

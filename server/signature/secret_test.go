package signature_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/linksgate/linksgate/server/signature"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	const value = "hunter2"
	secret := signature.Secret{Name: "2026-03", Value: value}
	keys := signature.Keyring{MD5: []signature.Secret{secret}, HMAC: map[string][]signature.Secret{"key1": {secret}}}

	printed := map[string]string{"String": secret.String(), "GoString": secret.GoString(), "LogValue": secret.LogValue().String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10.3s"} {
		printed["secret "+verb] = fmt.Sprintf(verb, secret)
		printed["pointer "+verb] = fmt.Sprintf(verb, &secret)
		printed["keyring "+verb] = fmt.Sprintf(verb, keys)
	}
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		log.Reset()
		slog.New(handler).Info("secrets", "secret", secret, "pointer", &secret, "keyring", keys)
		printed[fmt.Sprintf("%T", handler)] = log.String()
	}
	encoded, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	printed["json"] = string(encoded)

	for how, text := range printed {
		lower := strings.ToLower(text)
		if strings.Contains(lower, value) || strings.Contains(lower, fmt.Sprintf("%x", value)) {
			t.Errorf("%s shows the value: %s", how, text)
		}
		if !strings.Contains(text, "2026-03:***") {
			t.Errorf("%s does not show the name: %s", how, text)
		}
	}
}

/**
 * Reads notifications from a Linksgate gateway, and works on them in groups.
 *
 * <p>{@link com.linksgate.LinksgateClient} is where to begin. The messages are in {@code
 * com.linksgate.v1}.
 */
package com.linksgate;

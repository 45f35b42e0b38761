/**
 * The client library of Seriatim, a replicated commit log. Begin with {@link io.seriatim.client.SeriatimClient}.
 *
 * <p>The library logs to the {@link java.lang.System.Logger} with the name {@code io.seriatim.client}.
 */
package io.seriatim.client;

using System;

namespace Apim
{
    /// The second read of a body whose first read did not say preserveContent. APIM fails with a bare
    /// NullReferenceException; the type and the first sentence are kept, the rest says what happened.
    internal sealed class BodyConsumedException : NullReferenceException
    {
        public BodyConsumedException() : base(
            "Object reference not set to an instance of an object. "
            + "(The message body was already read without preserveContent: true.)")
        {
        }
    }

    /// A body above what APIM buffers.
    internal sealed class BodyTooLargeException : InvalidOperationException
    {
        public BodyTooLargeException(long size, long limit) : base(
            $"The message body of {size} bytes is larger than the {limit} bytes that policies can buffer.")
        {
        }
    }

    /// A read of a response that is being streamed to the client.
    internal sealed class StreamedBodyException : InvalidOperationException
    {
        public StreamedBodyException() : base(
            "The body of a streamed response was read: API Management would hold back the whole stream to answer.")
        {
        }
    }

    /// Named and worded as in API Management.
    internal sealed class UserVariableCastException : Exception
    {
        public UserVariableCastException(string name, Type expected, Type actual) : base(
            $"Unable to convert context variable `{name}` of type `{actual?.FullName ?? "null"}`"
            + $" to the type of `{expected.FullName}`.")
        {
        }
    }

    internal sealed class VariableTypeException : Exception
    {
        public VariableTypeException(string name, Type type) : base(
            $"An object of type {type.FullName} cannot be kept in the context variable `{name}`.")
        {
        }
    }

    internal sealed class BodyFormatException : FormatException
    {
        public BodyFormatException(string format, Exception cause) : base(
            $"The message body is not a valid {format}. {cause.Message}", cause)
        {
        }
    }
}
